package wardmesh;

import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.springframework.web.context.support.AnnotationConfigWebApplicationContext;

import ca.uhn.fhir.rest.server.RestfulServer;

/** Starts HAPI's JPA server on one loopback port: `java ... wardmesh.Counterpart PORT`, base /fhir. */
public final class Counterpart {

    private Counterpart() {}

    public static void main(String[] arguments) throws Exception {
        Server server = new Server();
        ServerConnector connector = new ServerConnector(server);
        connector.setHost("127.0.0.1");
        connector.setPort(Integer.parseInt(arguments[0]));
        server.addConnector(connector);
        ServletContextHandler root = new ServletContextHandler("/");
        server.setHandler(root);

        AnnotationConfigWebApplicationContext beans = new AnnotationConfigWebApplicationContext();
        beans.register(Wiring.class);
        beans.setServletContext(root.getServletContext());
        beans.refresh();

        root.addServlet(new ServletHolder(beans.getBean(RestfulServer.class)), "/fhir/*");
        server.start();
        server.join();
    }
}
